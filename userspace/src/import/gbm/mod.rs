//! Buffers of a GPU or a display, through GBM.
