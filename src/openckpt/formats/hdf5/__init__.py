"""HDF5 under Keras files: superblock, structure, datasets, and the child process in which libhdf5 may crash.

libhdf5 (through h5py) is asked only for structure - groups, types, where chunks lie - and only while a file is being opened;
tensor bytes are read, decompressed and checked by our own code, which compares every size with the bytes that exist.
`openckpt.formats.keras_h5` is the face: `open_hdf5`. Must not import opening or anything above; h5py and numpy only inside
functions.
"""
