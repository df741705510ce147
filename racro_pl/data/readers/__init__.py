"""One file per data set layout, with one small interface."""
