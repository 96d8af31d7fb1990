"""Today's models on a GPU: every family, decoders, 4-bit backbones: equality, milliseconds per step, memory.

    python -m benchmarks.gpu_models --json FILE [--minutes 4] [--only M1,M3]     # on a device
    python -m benchmarks.gpu_models --smoke                                      # on a CPU, tiny, not captured

Needs torch, transformers and peft, and bitsandbytes for M2 and for the rows of nf4 in M4. Without a device it measures nothing
and exits with 4; a section that fails says so in its table, and the exit code is 1.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks import measure
from benchmarks.gpu_loop import Section, run_script
from benchmarks.gpu_models_sections import m1_families, m2_quantized, m3_decoder, m4_billion
from benchmarks.gpu_setting import FULL

SECTIONS: dict[str, Section] = {"M1": m1_families, "M2": m2_quantized, "M3": m3_decoder, "M4": m4_billion}


def main(words: Sequence[str] | None = None) -> int:
    return run_script(
        "gpu_models",
        measure.parser(__doc__),
        words,
        lambda arguments: SECTIONS,
        FULL,
        minutes=4,
        encoder="named in each table, random weights",
        optimiser="peft: torch AdamW, LambdaLR; ours: AdamW on flat buffers",
        clock="wall clock, device synchronised; warm-up excluded, making the batches included",
    )


if __name__ == "__main__":
    sys.exit(main())
