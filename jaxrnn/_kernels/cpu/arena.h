// Memory that is allocated piece by piece. Without a base address it only counts bytes.
#pragma once
#include "vector.h"

namespace jaxrnn::JAXRNN_ISA {

class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}

  template <class T>
  T* take(Index count) {
    char* at = base_ + used_;
    used_ += padded(count * static_cast<Index>(sizeof(T)), 64);
    return reinterpret_cast<T*>(at);
  }

  bool real() const { return base_ != nullptr; }
  std::size_t used() const { return static_cast<std::size_t>(used_); }

 private:
  char* base_;
  Index used_ = 0;
};

// Returns the bytes that a layout takes.
template <class Layout, class... Of>
std::size_t bytes_of(const Of&... of) {
  Arena arena(nullptr);
  static_cast<void>(Layout(arena, of...));
  return arena.used();
}

}  // namespace jaxrnn::JAXRNN_ISA
