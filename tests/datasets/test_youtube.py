"""Fetching by the real yt-dlp from a server of our own that loses, refuses and delays clips."""

import http.server
import shutil
import threading
from typing import ClassVar

import pytest
from sounds import wav_bytes

from audioldm.datasets.decode import read_mono
from audioldm.datasets.manifest import Row
from audioldm.datasets.prepare import youtube
from audioldm.datasets.prepare.youtube import JOURNAL, fetch, is_permanent
from audioldm.errors import AudioLDMError

needs_ffmpeg = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="needs `apt-get install ffmpeg`")


@pytest.fixture
def server():
    """/NAME.wav: 2 s of sound; "gone" is 404; "busy" is 503 until ``healed`` is set; every request is counted."""
    data = wav_bytes(2.0, 440.0)

    class Handler(http.server.BaseHTTPRequestHandler):
        asked: ClassVar[list] = []
        healed = False

        def answer(self, body):
            name = self.path.strip("/").removesuffix(".wav")
            self.asked.append(name)
            status = 404 if name == "gone" else 503 if name == "busy" and not Handler.healed else 200
            self.send_response(status)
            self.send_header("Content-Type", "audio/x-wav")
            self.send_header("Content-Length", str(len(data) if status == 200 else 0))
            self.end_headers()
            if body and status == 200:
                self.wfile.write(data)

        def do_GET(self):
            self.answer(True)

        def do_HEAD(self):
            self.answer(False)

        def log_message(self, *_):
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http_server:
        thread = threading.Thread(target=http_server.serve_forever, daemon=True)
        thread.start()
        Handler.address = f"http://127.0.0.1:{http_server.server_port}/{{video}}.wav"
        yield Handler
        http_server.shutdown()


@needs_ffmpeg
def test_a_fetch_goes_on_where_it_stopped_and_tells_failures_apart(server, tmp_path, monkeypatch):
    monkeypatch.setattr(youtube, "GIVE_UP", 1)
    quick = [word for word in youtube.OPTIONS if word not in ("--retries", "3", "--retry-sleep", "exp=5:60")]
    monkeypatch.setattr(youtube, "OPTIONS", (*quick, "--retries", "0"))
    monkeypatch.setattr(youtube, "CLIP_SECONDS", 1.0)
    clips = [Row(f"nowhere/{name}_0.5", ("x",)) for name in ("fine", "gone", "busy")]
    with pytest.raises(AudioLDMError, match=r"could not be had: .*goes on later") as caught:
        fetch(clips, tmp_path, address=server.address)
    assert caught.value.code == 1
    wave, rate = read_mono(tmp_path / "fine_0.5.flac")
    assert len(wave) / rate == pytest.approx(1.0, abs=0.1)  # ffmpeg cuts at packets
    assert not list(tmp_path.glob(".part-*"))
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"clip": "half a li')  # what a killed process leaves
    server.asked.clear()
    server.healed = True
    findings = fetch(clips, tmp_path, address=server.address)
    assert [(finding.kind, finding.path) for finding in findings] == [("gone", "gone_0.5.flac")]
    assert set(server.asked) == {"busy"}, "what is there or gone for good is not asked for again"
    assert (tmp_path / JOURNAL).read_text().count('"gone_0.5.flac"') == 1


@pytest.mark.parametrize(
    ("said", "fate"),
    [
        ("Video unavailable. This video is no longer available because the account is closed", "permanent"),
        ("Video unavailable. The uploader has not made this video available in your country", "permanent"),
        ("This video has been removed by the uploader", "permanent"),
        ("Sign in to confirm your age. This video may be inappropriate", "permanent"),
        ("Sign in to confirm you’re not a bot.", "passing"),
        ("unable to download video data: HTTP Error 403: Forbidden", "passing"),
        ("HTTP Error 429: Too Many Requests", "passing"),
        ("<urlopen error [Errno 101] Network is unreachable>", "passing"),
        ("This content isn't available, try again later.", "passing"),
        ("", "passing"),
    ],
)
def test_verdicts(said, fate):
    assert is_permanent(f"ERROR: [youtube] x: {said}") == (fate == "permanent")


def test_what_is_needed_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioLDMError, match="ffmpeg"):
        fetch([], tmp_path)
