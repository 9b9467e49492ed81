//! What the process gives up before guest code runs, and the descriptors it was handed.

pub mod descriptors;
