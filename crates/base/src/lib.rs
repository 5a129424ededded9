//! The error type of the workspace, and checked access to files that may be damaged or hostile.
//!
//! - [`Error`]: one enum for all crates of the workspace;
//! - [`regular`]: opens regular files only, and refuses a file of another length than expected;
//! - [`disk`]: writes files and directories that are whole and durable, or absent;
//! - [`digest`]: SHA-256 as text, and bytes that contain their own digest;
//! - [`header`]: checks the header of a Burn file before Burn allocates the sizes in it;
//! - [`foreign`]: recognizes files of the wrong kind by their first bytes;
//! - [`first_non_finite`]: finds the first NaN or infinity in the bytes of a tensor.

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
