//! The options that say where a model is written and in which form, and the writing.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use burn::module::Module;
use burn_ema::{
    average::Description,
    export::{self, Contents, Form},
};
use burn_ema_lab::run::RunDirectory;
use clap::{Args, ValueEnum};

/// Where a model is written.
#[derive(Args)]
pub struct OutputArgs {
    /// The file to write; an older one is replaced
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// The form of the file [default: burnpack for a name that ends in .bpk, else torch]
    #[arg(long)]
    format: Option<Format>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// Burn's own form
    Burnpack,
    /// Safetensors under Burn's paths
    Safetensors,
    /// Safetensors under PyTorch's names, in its layout
    Torch,
}

impl OutputArgs {
    /// The path of the file to write.
    pub fn path(&self) -> PathBuf {
        match (self.to.extension(), self.format()) {
            (Some(_), _) => self.to.clone(),
            (None, Format::Burnpack) => self.to.with_extension("bpk"),
            (None, _) => self.to.with_extension("safetensors"),
        }
    }

    fn format(&self) -> Format {
        let of_name = match self.to.extension() {
            Some(ending) if ending == "bpk" => Format::Burnpack,
            _ => Format::Torch,
        };
        self.format.unwrap_or(of_name)
    }

    /// Refuses a file that cannot be written: its directory is not there, or it is a directory. And
    /// one that a run needs as it is: its model, or a file of its commits.
    pub fn check(&self) -> Result<()> {
        let to = self.path();
        let directory = to.parent().filter(|it| !it.as_os_str().is_empty());
        ensure!(
            directory.is_none_or(Path::is_dir),
            "--to: cannot write {}: there is no directory {}; make it, or name another",
            to.display(),
            directory.unwrap_or(&to).display()
        );
        for path in [&to, &self.to] {
            ensure!(
                !path.is_dir(),
                "--to: expected a file, found the directory {}",
                path.display()
            );
        }
        let directory = directory.unwrap_or(Path::new("."));
        let is_model = to.file_name().is_some_and(|name| name == "model.bpk")
            && RunDirectory::open(directory).is_ok();
        ensure!(
            !is_model && !directory.join("MANIFEST.json").exists(),
            "--to: {} is a file of a run, which needs it as it is; name another file",
            to.display()
        );
        Ok(())
    }

    /// Writes the model, prints what the file holds, and returns the path of the file.
    pub fn write<M: Module>(self, model: &M, description: &Description) -> Result<PathBuf> {
        let form = match self.format() {
            Format::Burnpack => Form::Burnpack,
            Format::Safetensors => Form::Safetensors,
            Format::Torch => Form::torch(),
        };
        let to = self.path();
        export::save(model, &to, &form, description)?;
        let Contents { kind, tensors, .. } = Contents::read(&to)?;
        println!("{}: {kind}, {description}", to.display());
        for (name, (dtype, shape)) in tensors {
            println!("  {name:<16} {} {:?}", dtype.name(), shape.as_slice());
        }
        Ok(to)
    }
}
