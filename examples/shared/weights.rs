//! The perceptron in a file of weights, and the options that say how the file is read.

#![allow(dead_code)] // each example uses some

use std::{collections::BTreeSet, path::Path};

use anyhow::{Result, ensure};
use burn::tensor::Device;
use burn_ema::{
    average::Description,
    export::{self, Contents, Form, Kind, LoadOptions},
    model::{Mlp, MlpConfig},
};
use clap::{Args, ValueEnum};

/// How a file of weights is read.
#[derive(Args)]
pub struct ReadOptions {
    /// Read only the tensors of a file whose names begin with this, such as module or
    /// state_dict_ema, and leave the others alone
    #[arg(long, value_name = "NAME", requires = "model")]
    prefix: Option<String>,
    /// Pass over the tensors whose names match a glob, such as '*.inv_freq'; it may be given
    /// several times
    #[arg(long, value_name = "GLOB", requires = "file")]
    leave_out: Vec<String>,
    /// Convert the numbers of a file to those of the network: 16 bits widen without loss, 64 bits
    /// are rounded
    #[arg(long, requires = "file")]
    cast: bool,
    /// The names and the layout of a file, where the file does not hold them
    #[arg(long, requires = "file")]
    form: Option<ReadForm>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReadForm {
    /// Names and layout of Burn
    Safetensors,
    /// Names and layout of PyTorch
    Torch,
}

impl ReadOptions {
    /// The options for a file.
    pub fn of_model(&self) -> LoadOptions {
        self.under(self.prefix())
    }

    /// The prefix that was given.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    /// The options for a file whose tensors are read under another prefix.
    pub fn under(&self, prefix: Option<&str>) -> LoadOptions {
        let options = LoadOptions::new().with_prefix(prefix.unwrap_or_default());
        let options = options.with_leave_out(&self.leave_out).with_cast(self.cast);
        match self.form {
            None => options,
            Some(ReadForm::Safetensors) => options.with_form(Form::Safetensors),
            Some(ReadForm::Torch) => options.with_form(Form::torch()),
        }
    }

    /// The perceptron in a file, as wide as the file says, with the activations of this
    /// configuration, and what the file says of it.
    pub fn read(
        &self,
        file: &Path,
        options: &LoadOptions,
        config: &MlpConfig,
        device: &Device,
    ) -> Result<(Mlp, Option<Description>)> {
        let (config, Contents { kind, description, .. }) =
            self.network(file, options, config, true)?;
        match &description {
            Some(said) => eprintln!("{}: {kind}, {said}", file.display()),
            None => eprintln!("{}: {kind}", file.display()),
        }
        Ok((export::load_with(config.init(device)?, file, options)?, description))
    }

    /// The configuration as wide as the network in a file, and what is in the file. With `fixed`,
    /// the network must have as many inputs and outputs as the configuration.
    pub fn network(
        &self,
        file: &Path,
        options: &LoadOptions,
        config: &MlpConfig,
        fixed: bool,
    ) -> Result<(MlpConfig, Contents)> {
        let contents = Contents::read_with(file, options)?;
        let Contents { kind, bytes, tensors, .. } = &contents;
        ensure!(
            !tensors.is_empty(),
            "{}: expected weights, found no tensor; --prefix and --leave-out choose what is read",
            file.display()
        );
        let matrices: Vec<_> = tensors.iter().filter(|(_, (_, shape))| shape.len() == 2).collect();
        // The layers of a part of the file, each from inputs to outputs.
        let layers = |part: &str, is_of_torch: bool| -> Vec<[usize; 2]> {
            let number = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
            let within = matrices.iter().filter_map(|(name, (_, shape))| {
                let widths = if is_of_torch { [shape[1], shape[0]] } else { [shape[0], shape[1]] };
                Some((number(name.strip_prefix(part)?), widths))
            });
            let mut within: Vec<_> = within.collect();
            within.sort_by_key(|(number, _)| *number);
            within.into_iter().map(|(_, widths)| widths).collect()
        };
        let follow = |layers: &[[usize; 2]]| {
            (fixed || !layers.is_empty()) && layers.windows(2).all(|it| it[0][1] == it[1][0])
        };
        let [inputs, outputs] = [config.sizes[0], config.sizes[config.sizes.len() - 1]];
        let ends = |layers: &[[usize; 2]]| match layers {
            [] => (inputs, outputs),
            [first, ..] => (first[0], layers[layers.len() - 1][1]),
        };
        // Files of others have either layout.
        let layouts: &[bool] = match (self.form, kind) {
            (Some(ReadForm::Safetensors), _) => &[false],
            (Some(ReadForm::Torch), _) | (None, Kind::Pt) => &[true],
            (None, Kind::Burnpack | Kind::Safetensors) => &[false, true],
            (None, Kind::Torch) => &[true, false],
        };
        // All of the file; else a part, of which the library says that it needs its prefix.
        let parts = matrices.iter().filter_map(|(name, _)| {
            let within = name.rsplitn(3, '.').nth(2)?;
            Some(&name[..=within.len()])
        });
        let parts: BTreeSet<_> = [""].into_iter().chain(parts).collect();
        let all = parts.iter().flat_map(|part| layouts.iter().map(move |layout| (*part, *layout)));
        let mut all = all.map(|(part, is_of_torch)| (part, layers(part, is_of_torch)));
        let is_wide = |layers: &[_]| !fixed || ends(layers) == (inputs, outputs);
        let fitting = all.find(|(_, layers)| follow(layers) && is_wide(layers));
        let (part, layers) = fitting.unwrap_or_else(|| ("", layers("", layouts[0])));
        ensure!(
            follow(&layers),
            "{}: expected layers that follow each other, found such from and to {layers:?}",
            file.display()
        );
        let found = ends(&layers);
        ensure!(
            is_wide(&layers),
            "{}: expected a network from {inputs} inputs to {outputs} outputs, found one from {} to {}",
            file.display(),
            found.0,
            found.1
        );
        // PyTorch's files may show one number as a whole matrix.
        let claimed =
            tensors.values().map(|(dtype, shape)| (dtype.size() * shape.num_elements()) as u64);
        let claimed: u64 = claimed.sum();
        ensure!(
            claimed <= *bytes,
            "{}: expected at most {bytes} bytes of weights, as the file has, found {claimed}",
            file.display()
        );
        let sizes = match &layers[..] {
            [] => config.sizes.clone(),
            [first, ..] => {
                [first[0]].into_iter().chain(layers.iter().map(|widths| widths[1])).collect()
            }
        };
        let config = MlpConfig { sizes, ..config.clone() };
        let is_bias = |name: &String| name.starts_with(part) && name.ends_with("bias");
        Ok((config.with_bias(tensors.keys().any(is_bias)), contents))
    }
}
