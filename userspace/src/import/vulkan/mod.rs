//! Frames as images of a GPU, through Vulkan.
