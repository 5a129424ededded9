//! The perceptron in a file of weights, and the options that say how the file is read.

use std::path::Path;

use anyhow::{Context, Result, ensure};
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
    /// Read only the tensors of --model whose names begin with this, such as module or
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
    /// The names and the layout of a file, where it does not tell them itself
    #[arg(long, requires = "file")]
    form: Option<ReadForm>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ReadForm {
    /// Those of Burn
    Safetensors,
    /// Those of PyTorch
    Torch,
}

impl ReadOptions {
    /// The options for the file of --model.
    pub fn of_model(&self) -> LoadOptions {
        self.under(self.prefix.as_deref())
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
        let Contents { kind, bytes, description, tensors, .. } =
            Contents::read_with(file, options)?;
        match &description {
            Some(said) => eprintln!("{}: {kind}, {said}", file.display()),
            None => eprintln!("{}: {kind}", file.display()),
        }
        let number = |name: &str| name.split('.').find_map(|part| part.parse::<usize>().ok());
        let matrices = tensors.iter().filter(|(_, (_, shape))| shape.len() == 2);
        let mut weights: Vec<_> =
            matrices.map(|(name, (_, shape))| (number(name), shape)).collect();
        weights.sort_by_key(|(number, _)| *number);
        let widths = |is_of_torch: &bool| -> Vec<[usize; 2]> {
            let widths = |shape: &[usize]| match is_of_torch {
                false => [shape[0], shape[1]],
                true => [shape[1], shape[0]],
            };
            weights.iter().map(|(_, shape)| widths(shape)).collect()
        };
        let follow = |weights: &[[usize; 2]]| weights.windows(2).all(|it| it[0][1] == it[1][0]);
        let [inputs, outputs] = [config.sizes[0], config.sizes[config.sizes.len() - 1]];
        let ends = |weights: &[[usize; 2]]| match weights {
            [] => (inputs, outputs),
            [first, ..] => (first[0], weights[weights.len() - 1][1]),
        };
        // Safetensors of others have either layout.
        let layouts: &[bool] = match (self.form, kind) {
            (Some(ReadForm::Safetensors), _) | (None, Kind::Burnpack) => &[false],
            (Some(ReadForm::Torch), _) | (None, Kind::Pt) => &[true],
            (None, Kind::Safetensors) => &[false, true],
            (None, Kind::Torch) => &[true, false],
        };
        let fits = |weights: &Vec<_>| follow(weights) && ends(weights) == (inputs, outputs);
        let weights = layouts.iter().map(widths).find(fits).unwrap_or_else(|| widths(&layouts[0]));
        if !follow(&weights) {
            // The library says which prefixes there are.
            let refused = export::load_with(config.init(device)?, file, options);
            let found = format!("expected layers that follow each other, found {weights:?}");
            return Ok((refused.context(found)?, description));
        }
        let found = ends(&weights);
        ensure!(
            found == (inputs, outputs),
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
            claimed <= bytes,
            "{}: expected at most {bytes} bytes of weights, as the file has, found {claimed}",
            file.display()
        );
        let sizes = match &weights[..] {
            [] => config.sizes.clone(),
            _ => [inputs].into_iter().chain(weights.iter().map(|width| width[1])).collect(),
        };
        let config = MlpConfig { sizes, ..config.clone() };
        let config = config.with_bias(tensors.keys().any(|name| name.ends_with("bias")));
        Ok((export::load_with(config.init(device)?, file, options)?, description))
    }
}
