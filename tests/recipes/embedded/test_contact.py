"""The contact sheet of a manifest's clips."""

import soundfile as sf
import torch
from PIL import Image

from audioldm.datasets.manifest import Row, write
from recipes.embedded.contact import main


def test_clips_of_a_manifest_are_drawn(tmp_path):
    rng = torch.Generator().manual_seed(0)
    rows = []
    for i in range(4):
        path = tmp_path / f"{i}.wav"
        sf.write(path, (0.1 * torch.randn(8000, generator=rng)).numpy(), 16000)
        rows.append(Row(str(path), (f"noise number {i} " * 5,)))
    write(rows, tmp_path / "clips.jsonl")
    main([str(tmp_path / "clips.jsonl"), "-o", str(tmp_path / "a" / "sheet.png")])
    with Image.open(tmp_path / "a" / "sheet.png") as image:
        assert image.width > 800 and len(image.convert("L").getcolors() or []) > 50
