"""Run the native kernels under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

  python -m tests.models.sanitize

Compiles the kernels' own source with a small driver (`kernel_driver.cpp`), for this processor and
for one with AVX2 alone where this one has more. Exit code 1 where a sanitizer finds something, or
where a layer is not as plain loops compute it. Built by a cross compiler (``-static``), the driver
tells the same of another processor in an emulator: ``qemu-aarch64-static driver 37`` tries every
37th layer.
"""

import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from mri_jax.models.conv_layer import kernels

SANITIZERS = ("address,undefined", "thread")
HERE = Path(__file__).parent
KERNELS = Path(kernels.__file__).parent


def processors() -> list[str]:
    """What to compile for: this machine, and x86 with AVX2 alone, for which they are tuned too."""
    return ["native", "x86-64-v3"] if platform.machine() == "x86_64" else ["native"]


def run(sanitizer: str, processor: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Compile and run the driver; what was found is in ``stderr``."""
    program = folder / f"{sanitizer.replace(',', '-')}-{processor}"
    command = [
        kernels.find_compiler(), "-std=c++20", "-O1", "-g", f"-march={processor}", "-Wno-psabi",
        f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-pthread", f"-I{KERNELS}",
        str(HERE / "kernel_driver.cpp"), "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return subprocess.run([str(program)], capture_output=True, encoding="utf-8")


def main() -> int:
    """Run every sanitizer for every processor; 1 if one finds something."""
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for processor in processors():
            for sanitizer in SANITIZERS:
                done = run(sanitizer, processor, Path(folder))
                found += done.returncode != 0
                verdict = "no findings" if done.returncode == 0 else f"failed\n{done.stderr}"
                print(f"{sanitizer}, {processor}: {done.stdout.strip()}; {verdict}", flush=True)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
