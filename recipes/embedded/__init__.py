"""What only the embedded model needs: its sounds, its trainings in short leases, its contact sheet."""
