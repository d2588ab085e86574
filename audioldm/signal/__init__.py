"""Waveform and spectrogram maths: torch and torchaudio.functional only."""
