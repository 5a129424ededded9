//! The guide: which average to use, and what it costs, gains and survives.
//!
//! - [`choosing`]: from what you know of a training to a rule, and what each rule is;
//! - [`survival`]: commits, resume, damaged files, signals, numbers that are not finite;
//! - [`speed`]: time and memory, beside PyTorch; how to measure them;
//! - [`evidence`]: whether averages do better on data that was not trained on, over many seeds;
//! - [`uses`]: what averages gain in uses beside validation, such as sampling, over several seeds;
//! - [`coming_from`]: what takes the place of a hand-written average, or of one in PyTorch or JAX;
//! - [`shipping`]: one file for Burn, safetensors or PyTorch, and a program that runs the model in
//!   it;
//! - [`merging`]: several saved models as one, by which weights;
//! - [`devices`]: several devices, and servers of other machines.
//!
//! Each number in the pages comes from a command beside it.

pub mod choosing {
    #![doc = include_str!("guide/choosing.md")]
    //!
    //! # Pictures
    //!
    //! A weight on its way from 0 to 1 under noise, and three averages of it for each of three
    //! decays:
    //!
    #![doc = include_str!("../artifacts/figures/settle.svg")]
    //!
    //! An outlier, and by how much it moves the averages:
    //!
    #![doc = include_str!("../artifacts/figures/outlier.svg")]
    //!
    //! [`post_hoc`]: crate::average::post_hoc
    //! [`update_all`]: crate::average::update_all
    //! [`Warning::Start`]: crate::average::Warning::Start
    //! [`Warning::Window`]: crate::average::Warning::Window
    //! [`Warning::Every`]: crate::average::Warning::Every
    //! [`Warning::NoUpdate`]: crate::average::Warning::NoUpdate
    //! [`Warning::Stops`]: crate::average::Warning::Stops
    //! [`Warning::Overshoot`]: crate::average::Warning::Overshoot
    //! [`Warning::Dtype`]: crate::average::Warning::Dtype
    //! [`Warning::NonFinite`]: crate::average::Warning::NonFinite
    //! [`Warning::RefusedSteps`]: crate::average::Warning::RefusedSteps
    //! [`Warning::Nothing`]: crate::average::Warning::Nothing
    //! [`Warning::RepeatedStep`]: crate::average::Warning::RepeatedStep
    //! [`Warning::Bypassed`]: crate::average::Warning::Bypassed
    //! [`Warning::Replaced`]: crate::average::Warning::Replaced
    //! [`Policy`]: crate::Policy
    //! [`Average::final_warnings`]: crate::Average::final_warnings
    //! [`NonFinite`]: crate::NonFinite
    //! [`Average::module`]: crate::Average::module
    //! [`Average::advance`]: crate::Average::advance
    //! [`Average::warnings`]: crate::Average::warnings
    //! [`reestimate_statistics`]: crate::reestimate_statistics
    //! [`Error`]: crate::Error
    //! [`take_warnings`]: crate::train::Averaged::take_warnings
}

pub mod survival {
    #![doc = include_str!("guide/survival.md")]
    //!
    //! [`Fit`]: crate::runs::Fit
    //! [merge]: super::merging
}

pub mod speed {
    #![doc = include_str!("guide/speed.md")]
}

pub mod evidence {
    #![doc = include_str!("guide/evidence.md")]
}

pub mod coming_from {
    #![doc = include_str!("guide/coming_from.md")]
    //!
    //! [`Warning::Start`]: crate::average::Warning::Start
    //! [`reestimate_statistics`]: crate::reestimate_statistics
    //! [`Rule::target`]: crate::Rule::target
}

pub mod uses {
    #![doc = include_str!("guide/uses.md")]
    //!
    //! # Pictures
    //!
    //! The distance of a sampler's digits from real ones, by the width of the average:
    //!
    #![doc = include_str!("../artifacts/figures/diffusion-widths.svg")]
    //!
    //! Digits from the same noise, made by live and by an average:
    //!
    #![doc = include_str!("../artifacts/figures/diffusion-samples.svg")]
    //!
    //! [`update_all`]: crate::average::update_all
    //! [merging]: super::merging
    //! [`Warning::Overshoot`]: crate::average::Warning::Overshoot
    //! [`Average::advance`]: crate::Average::advance
}

pub mod shipping {
    #![doc = include_str!("guide/shipping.md")]
    //!
    //! [`export`]: crate::export
    //! [`export::LoadOptions`]: crate::export::LoadOptions
}

pub mod devices {
    #![doc = include_str!("guide/devices.md")]
    //!
    //! [`Averaged`]: crate::train::Averaged
    //! [`fit`]: crate::runs::fit
    //! [`Mlp`]: crate::model::Mlp
}

pub mod merging {
    #![doc = include_str!("guide/merging.md")]
    //!
    //! [`export`]: crate::export
    //! [`export::merge`]: crate::export::merge
    //! [`export::load_with`]: crate::export::load_with
    //! [`export::save`]: crate::export::save
    //! [uses]: super::uses
    //! [`Commit::path`]: crate::runs::Commit::path
    //! [`reestimate_statistics`]: crate::reestimate_statistics
}
