//! Tensors of Burn's CPU backends, Flex and ndarray, as slices; and work divided among threads.
//!
//! Both are for kernels that Burn has no operation for. Slices are the memory of a tensor,
//! without a copy where its storage allows it. ndarray needs the feature `ndarray`.

#![deny(unsafe_code)]
#![warn(missing_docs)]

mod slices;
pub mod threads;

pub use slices::{
    Real, Slice, SliceMut, are_both_flex, in_order, is_on_host, numbers, owned_numbers_mut, shape,
    slice, sole_numbers_mut, tensor_like, to_order,
};
