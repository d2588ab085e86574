"""``audioldm generate`` over a Ray cluster: a task for each part of a prompt file; a lost worker's part is done again.

    python integrations/ray/generate.py --parts 16 --gpus 1 -- --prompts prompts.csv -o /shared/out

Every machine sees the prompt file and the folder.   Seeds belong to places in the file: the sounds are the same for any
number of parts and workers.
"""

import argparse
import os
import sys

import ray


@ray.remote(max_retries=3)
def make(rank: int, parts: int, words: list[str]) -> None:
    """Make every ``parts``-th clip, from number ``rank`` on, that is not there."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(parts)}
    from audioldm.cli.app import run

    if code := run(["generate", *words, "--resume"]):
        raise RuntimeError(f"part {rank} of {parts} ended with code {code}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", type=int, default=8, help="more than workers, so that none waits long")
    parser.add_argument("--cpus", type=float, default=1, help="of a task")
    parser.add_argument("--gpus", type=float, default=0, help="of a task")
    parser.add_argument("words", nargs="+", help="what audioldm generate takes")
    asked = parser.parse_args()
    ray.init(log_to_driver=True)
    task = make.options(num_cpus=asked.cpus, num_gpus=asked.gpus)
    try:
        ray.get([task.remote(rank, asked.parts, asked.words) for rank in range(asked.parts)])
    except ray.exceptions.RayError as error:
        sys.exit(f"{str(error).strip().splitlines()[-1]}\nThe same command makes what is missing.")
