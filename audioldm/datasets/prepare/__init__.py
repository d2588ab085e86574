"""Each source's files to manifest rows; the rows are checked by ``audioldm.datasets.manifest.check`` afterwards."""
