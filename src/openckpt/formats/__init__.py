"""What the bytes mean: one module or folder per format, each a reader and, where sensible, an encoder.

Every reader implements `openckpt.formats.spec.TensorReader` over a `Store`; every encoder is pure (values in, bytes out).
Must not import anything above: no opening, no doctor, no command line. NumPy and h5py are imported inside the
functions that need them, because listing a checkpoint must cost milliseconds.
"""
