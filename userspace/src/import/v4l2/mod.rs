//! Frames of cameras and other video devices, through V4L2.
