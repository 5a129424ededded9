//! The error of the workspace, and files that may be damaged or hostile.
//!
//! - [`Error`]: one enum for all crates of the workspace;
//! - [`regular`]: files that are opened only where they are regular files, and read only up to a
//!   length that is known before;
//! - [`disk`]: files and directories that are there whole and durable, or not at all;
//! - [`digest`]: SHA-256 as text, and bytes that hold their own;
//! - [`header`]: the header of a file of Burn, checked before Burn makes room for what it claims;
//! - [`foreign`]: files that are often given in place of another, known by their first bytes;
//! - [`first_non_finite`]: NaNs and infinities in the bytes of a tensor.

#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod digest;
pub mod disk;
mod error;
mod finite;
pub mod foreign;
pub mod header;
pub mod regular;

pub use error::{Error, Result};
pub use finite::first_non_finite;
