#![doc = include_str!("guide.md")]
//!
//! # Pictures
//!
//! A weight on its way from 0 to 1 under noise, and three averages of it for each of three decays:
//!
#![doc = include_str!("../artifacts/figures/settle.svg")]
//!
//! The same with an outlier, and by how much that moves the averages:
//!
#![doc = include_str!("../artifacts/figures/outlier.svg")]
//!
//! [`post_hoc`]: crate::average::post_hoc
//! [`Warning::Start`]: crate::average::Warning::Start
//! [`Warning::Window`]: crate::average::Warning::Window
//! [`Warning::Every`]: crate::average::Warning::Every
//! [`Warning::NoUpdate`]: crate::average::Warning::NoUpdate
//! [`Warning::Stops`]: crate::average::Warning::Stops
//! [`Warning::Dtype`]: crate::average::Warning::Dtype
//! [`Warning::NonFinite`]: crate::average::Warning::NonFinite
//! [`Warning::RefusedSteps`]: crate::average::Warning::RefusedSteps
//! [`NonFinite`]: crate::NonFinite
//! [`Average::module`]: crate::Average::module
//! [`Average::warnings`]: crate::Average::warnings
//! [`reestimate_statistics`]: crate::reestimate_statistics
//! [`Error`]: crate::Error
//! [`take_warnings`]: crate::train::Averaged::take_warnings
