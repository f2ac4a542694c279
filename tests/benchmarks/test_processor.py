"""The processor is told by the numbers of its maker, and names the folder of its results."""

import json

import pytest

from benchmarks import processor, record

CPUINFO = """\
processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: {model}
model name\t: {name}
stepping\t: {stepping}
flags\t\t: fpu avx2 {flags}

processor\t: 1
vendor_id\t: {vendor}
model name\t: another
"""
CASES = [
    ("AuthenticAMD", 23, 49, 0, "Zen 2"),
    ("AuthenticAMD", 25, 1, 1, "Zen 3"),
    ("AuthenticAMD", 25, 17, 1, "Zen 4"),
    ("AuthenticAMD", 25, 160, 1, "Zen 4"),
    ("AuthenticAMD", 26, 2, 1, "Zen 5"),
    ("GenuineIntel", 6, 85, 4, "Skylake-SP"),
    ("GenuineIntel", 6, 85, 7, "Cascade Lake"),
    ("GenuineIntel", 6, 106, 6, "Ice Lake-SP"),
    ("GenuineIntel", 6, 143, 8, "Sapphire Rapids"),
    ("GenuineIntel", 6, 207, 2, "Emerald Rapids"),
    ("GenuineIntel", 6, 173, 1, "Granite Rapids"),
    ("AuthenticAMD", 6, 207, 2, None),
    ("GenuineIntel", 6, 85, 9, None),
]


@pytest.mark.parametrize(("vendor", "family", "model", "stepping", "name"), CASES)
def test_microarchitectures(vendor, family, model, stepping, name):
    about = {"vendor": vendor, "family": family, "model": model, "stepping": stepping}
    found = processor.describe(CPUINFO.format(name="Some CPU", flags="amx_bf16 f16c sse", **about))
    maker = processor.VENDORS[vendor]
    assert found["microarchitecture"] == name
    assert (found["cpu"], found["vendor"], found["family"], found["model"]) == ("Some CPU", maker, family, model)
    assert found["stepping"] == stepping
    assert found["vector_units"] == ["f16c", "avx2", "amx_bf16"]
    machine = {**found, "cores": 2, "platform": "cpu"}
    slug = f"{maker} {name} 2 cores" if name else f"{maker} family {family} model {model} 2 cores"
    assert record.slug(machine) == slug.lower().replace(" ", "-")


def test_no_line_of_the_table_is_hidden_by_another():
    for line in processor.MICROARCHITECTURES:
        for model in line.models:
            numbers = {"family": line.family, "model": model[0], "stepping": line.steppings[0]}
            assert processor.microarchitecture(line.vendor, **numbers) == line.name


def test_a_system_that_says_nothing(tmp_path):
    found = processor.describe("", tmp_path)
    assert (found["vendor"], found["family"], found["microarchitecture"]) == (None, None, None)
    assert (found["vector_units"], found["caches"]) == ([], {})


def test_caches(tmp_path):
    for index, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"), ("3", "Unified", "260M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, text in {"level": level, "type": kind, "size": size}.items():
            (folder / name).write_text(text + "\n")
    assert processor.cache_sizes(tmp_path) == {"L1d": 48 * 2**10, "L2": 2**21, "L3": 260 * 2**20}


def test_a_record_without_a_family_is_named_by_its_vector_unit():
    old = {"cpu": "AMD EPYC", "cores": 2, "vector_units": ["avx2", "avx512f"], "device": "cpu", "platform": "cpu"}
    assert record.slug(old) == "amd-epyc-avx512f-2-cores"


def test_a_gpu_is_named_by_itself():
    assert record.slug({"platform": "gpu", "device": "NVIDIA H100", "cpu": "Some CPU", "cores": 2}) == "nvidia-h100"


@pytest.mark.parametrize(
    "path", sorted(record.RESULTS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_committed_results_lie_in_the_folder_of_their_machine(path):
    assert record.slug(json.loads(path.read_text())["hardware"]) == path.parent.name
