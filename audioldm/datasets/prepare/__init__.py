"""Each source's files to manifest rows; the rows are checked by ``audioldm.datasets.check.check`` afterwards."""
