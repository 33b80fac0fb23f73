"""What else than updates may leave a hospital: noised statistics, keyed fingerprints of scans."""
