"""Dice of the default brain extraction with deepbet's masks, and its time, for a folder of scans.

    python benchmarks/brain_extraction.py ../shared/data/ixi_hh_2mm

Needs the extra ``deepbet``, whose masks serve as the reference; they are no ground truth.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from mri_jax.volumes import brain, inputs
from mri_jax.volumes.inhomogeneity import correct, log_bias_field
from mri_jax.volumes.pipeline import WORKING_SPACING
from mri_jax.volumes.registration import register_head
from mri_jax.volumes.resampling import Image, block_mean, pull
from mri_jax.volumes.scans import read_scan
from mri_jax.volumes.templates import load_template


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    template = load_template()
    found = []
    for entry in inputs.find(parser.parse_args().folder).entries:
        scan = read_scan(entry.path)
        whole = Image(scan.data, scan.affine)
        start = time.process_time()
        with threadpool_limits(limits=1):
            working = block_mean(whole, WORKING_SPACING)
            working = correct(working, log_bias_field(working))
            fit = register_head(working, template)
            mask = brain.by_template(working, fit, template)
        seconds = time.process_time() - start
        reference = brain.by_deepbet(whole)
        here = pull(Image(mask, working.affine), scan.affine, scan.data.shape) > 0.5
        both = np.count_nonzero(here & reference)
        dice = 2 * both / (np.count_nonzero(here) + np.count_nonzero(reference))
        found.append(dice)
        print(f"{entry.subject_id}: Dice {dice:.4f}, {seconds:.1f} s of CPU", flush=True)
    print(f"mean {np.mean(found):.4f}, worst {np.min(found):.4f}, {len(found)} scans")


if __name__ == "__main__":
    main()
