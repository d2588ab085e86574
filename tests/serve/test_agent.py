"""The agent's tools by the official client: over stdio as a process, and in memory for what they refuse."""

import asyncio
import json
import sys
from pathlib import Path

import numpy as np
import soundfile
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from audioldm.nets.captioner import build_captioner
from audioldm.nets.folder import save_component
from audioldm.pipeline.audioldm import AudioLDM
from audioldm.serve.agent import build
from audioldm.serve.service import Limits, Service


def test_generate_and_edit_over_stdio(tiny_model, tmp_path):
    words = ["-m", "audioldm", "mcp", "-m", str(tiny_model), "--device", "cpu", "-o", str(tmp_path)]

    async def talk():
        server = StdioServerParameters(command=sys.executable, args=words)
        async with stdio_client(server) as pipes, ClientSession(*pipes) as session:
            await session.initialize()
            names = {tool.name for tool in (await session.list_tools()).tools}
            sound = await session.call_tool(
                "generate", {"prompt": "rain", "seconds": 0.5, "steps": 2, "seed": 3}
            )
            file = json.loads(sound.content[0].text)["file"]
            longer = await session.call_tool("edit", {"file": file, "kind": "continue", "seconds": 0.5})
            return names, file, json.loads(longer.content[0].text)["file"]

    names, first, second = asyncio.run(talk())
    assert {"generate", "edit"} <= names
    assert soundfile.info(first).frames == 8000 and soundfile.info(second).frames == 16000
    assert Path(first).parent == Path(second).parent == tmp_path


def test_what_cannot_be_is_a_sentence(tiny_model, tmp_path):
    service = Service(AudioLDM.from_pretrained(tiny_model), Limits(seconds=5.0))

    async def refusals():
        async with Client(build(service, tmp_path)) as client:
            asked = [
                ("generate", {"prompt": " "}),
                ("generate", {"prompt": "x", "seconds": 50}),
                ("edit", {"file": "no", "kind": "vary"}),
            ]
            replies = [await client.call_tool(name, arguments) for name, arguments in asked]
            return [(reply.is_error, reply.content[0].text) for reply in replies]

    empty, long, missing = asyncio.run(refusals())
    assert empty[0] and "The prompt is empty" in empty[1]
    assert long[0] and "more than 5" in long[1]
    assert missing[0] and "file='no' is not there" in missing[1]


def test_a_sound_is_described_where_there_is_a_captioner(tiny_model, tmp_path):
    pipe = AudioLDM.from_pretrained(tiny_model)
    captioner = build_captioner(pipe.clap, ["a dog barking", "rain"], width=16, queries=2, layers=(1, 1))
    save_component(captioner.eval(), tmp_path / "captioner")
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(16000) / 5), 16000)

    async def described():
        async with Client(build(Service(pipe), tmp_path, tmp_path / "captioner")) as client:
            reply = await client.call_tool("describe", {"file": str(tmp_path / "a.wav")})
            return json.loads(reply.content[0].text)

    caption = asyncio.run(described())
    assert isinstance(caption["text"], str) and 0 <= caption["match"] <= 1
