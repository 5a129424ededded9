//! Trainings on servers of Burn's remote backend, against the same trainings on Flex: the bits, the
//! bytes on the wire, and servers that die.
//!
//! The servers are processes of their own on loopback, with Flex behind them.

#[allow(dead_code, reason = "shared with the tests of the other crates")]
#[path = "../../../../tests/it/common.rs"]
mod common; // models, loaders and trainings
#[allow(dead_code, reason = "shared with the tests of the other crates")]
#[path = "../../../../tests/it/hand.rs"]
mod hand; // trainings that write live down

mod deaths; // servers that are killed
mod digits; // a training of the perceptron with commits
#[cfg(burn_next)]
mod distributed; // the strategy that needs CUDA before Burn 0.23
mod mlp; // the perceptron, whose kernels on Flex are its own
#[cfg(feature = "ndarray")]
mod others; // a server with another backend than before
mod parts; // parts of a test in processes of their own
mod program; // the example `train`
mod proxy; // counts the bytes between clients and servers
mod refusals; // what is refused, and what it says
mod server; // a server as a child process
mod several; // two servers
mod single; // one server
mod trap; // a loader that does something at a batch
