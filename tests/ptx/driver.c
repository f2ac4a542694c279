/* What a CUDA driver is asked while a kernel is compiled and launched, answered without a GPU: it has compute capability
   9.0, and a launch prints its grid and the addresses that it is handed. Built as libcuda.so.1. */
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  unsigned grid[3], block[3], shared;
} Launch;

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 13000, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = 0; }
int cuCtxGetDevice(int *device) { return *device = 0; }
int cuCtxGetCurrent(void **context) { return *context = (void *)1, 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  enum { PROCESSORS = 16, MAJOR = 75, MINOR = 76, SHARED = 97 };
  *value = attribute == MAJOR ? 9 : attribute == MINOR ? 0 : attribute == PROCESSORS ? 132 : attribute == SHARED ? 232448 : 1;
  return 0;
}
int cuDeviceComputeCapability(int *major, int *minor, int device) { return *major = 9, *minor = 0; }
int cuGetErrorName(int error, const char **name) { return *name = "error", 0; }
int cuGetErrorString(int error, const char **text) { return *text = "error", 0; }
int cuModuleLoadData(void **module, const void *image) { return *module = (void *)1, 0; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return *function = (void *)1, 0; }
int cuFuncSetAttribute(void *function, int attribute, int value) { return 0; }
int cuLaunchKernelEx(const Launch *launch, void *function, void **params, void **extra) {
  int count = atoi(getenv("JAXRNN_PARAMS"));
  printf("\nLAUNCH %u %u %u %u %u", launch->grid[0], launch->grid[1], launch->grid[2], launch->block[0], launch->shared);
  for (int i = 0; i < count; i++) printf(" %llu", *(unsigned long long *)params[i]);
  printf("\n");
  fflush(stdout);
  return 0;
}
