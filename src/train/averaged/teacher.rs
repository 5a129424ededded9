//! The teacher: an average that live learns from, inside its loss.

use std::{fmt, sync::Arc};

use burn::{
    module::{Flag, Module, ModuleMapper, Param},
    train::{LearnerModel, TrainOutput, TrainStep},
};

use super::Averaged;
use crate::{
    Error, Result,
    average::{ReadRecord, WordReader, Words},
};

/// The name of a record's entry. The record of a module without a teacher has none.
pub(super) const TEACHER: &str = "teacher";

/// Computes a training step from live, the teacher and a batch.
pub(super) type Learn<M> = Arc<
    dyn Fn(&M, &M, <M as TrainStep>::Input) -> TrainOutput<<M as TrainStep>::Output> + Send + Sync,
>;

/// Which average teaches live, and how live learns from it.
#[derive(Clone)]
pub(super) struct Teacher<M: LearnerModel> {
    /// The index of the average.
    index: usize,
    settings: TeacherSettings,
    learn: Learn<M>,
}

/// The settings of a teacher that a record holds. The function by which live learns cannot be
/// saved.
#[derive(Clone, PartialEq)]
struct TeacherSettings {
    /// The name of the average.
    average: String,
    /// True if the teacher is in training mode.
    trains: bool,
}

impl<M: LearnerModel> Teacher<M> {
    /// The settings for a record.
    pub fn words(&self) -> Words {
        let TeacherSettings { average, trains } = &self.settings;
        Words::new().with_text(average).with_u64(u64::from(*trains))
    }
}

impl TeacherSettings {
    fn of(mut words: WordReader) -> Result<Self> {
        let settings = Self { average: words.text()?, trains: words.u64()? != 0 };
        words.end()?;
        Ok(settings)
    }
}

impl fmt::Display for TeacherSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = if self.trains { "training" } else { "validation" };
        write!(f, "the average {} in {mode} mode", self.average)
    }
}

impl<M: LearnerModel> Averaged<M> {
    /// This module with the average of this index as the teacher; `trains` is true for one in
    /// training mode.
    ///
    /// # Errors
    ///
    /// No average of this index.
    pub(super) fn taught_by(self, index: usize, trains: bool, learn: Learn<M>) -> Result<Self> {
        let average = self.averages.average(index)?.name().to_owned();
        let settings = TeacherSettings { average, trains };
        Ok(Self { teacher: Some(Teacher { index, settings, learn }), ..self })
    }

    /// Checks that a record has this module's teacher, since the next steps would minimise another
    /// loss otherwise.
    ///
    /// # Errors
    ///
    /// Another teacher, one in another mode, or a teacher on one side alone, unless that is
    /// [allowed](Self::allow_other_teacher).
    pub(super) fn check_teacher(&self, opened: &ReadRecord) -> Result<()> {
        let own = self.teacher.as_ref().map(|teacher| teacher.settings.clone());
        let is_saved = opened.names().any(|name| name == TEACHER);
        let saved = is_saved.then(|| opened.words(TEACHER).and_then(TeacherSettings::of));
        let saved = saved.transpose()?;
        if own == saved || self.options.allow_other_teacher {
            return Ok(());
        }
        let describe = |settings: &Option<TeacherSettings>| match settings {
            Some(settings) => settings.to_string(),
            None => "no teacher".to_owned(),
        };
        let remedy = match &saved {
            Some(TeacherSettings { average, trains }) => {
                let method = if *trains { "with_teacher_in_training_mode" } else { "with_teacher" };
                match self.names().iter().position(|name| name == average) {
                    Some(index) => format!("call `{method}({index}, ..)` first"),
                    None => format!("add an average {average}, and call `{method}` with its index"),
                }
            }
            None => "leave out the teacher".to_owned(),
        };
        let found = describe(&saved);
        let found = format!(
            "{found} in the record ({remedy}; the change can be allowed: `allow_other_teacher`)"
        );
        Err(Error::parameter(TEACHER, describe(&own), found))
    }

    /// The forward and backward pass of a batch: live's own, or with the teacher.
    ///
    /// An error of the teacher is kept; live then takes its place, and the step is refused later.
    pub(super) fn pass(
        &self,
        batch: <M as TrainStep>::Input,
    ) -> TrainOutput<<M as TrainStep>::Output> {
        let Some(teacher) = &self.teacher else { return TrainStep::step(&self.live, batch) };
        let module = self.teaching_module(teacher).unwrap_or_else(|error| {
            self.options.stop(format!("the teacher: {error}"));
            self.averages.keep_error(error);
            self.live.valid()
        });
        (teacher.learn)(&self.live, &module, batch)
    }

    /// The teacher as a plain module, on live's devices.
    fn teaching_module(&self, teacher: &Teacher<M>) -> Result<M> {
        self.check_follows()?;
        let module = self.averages.teacher(teacher.index)?.module_beside(&self.live)?;
        Ok(if teacher.settings.trains { module.map(&mut TrainingMode) } else { module })
    }
}

/// Switches the layers that distinguish training and validation to training, and leaves the weights
/// without autodiff.
struct TrainingMode;

impl ModuleMapper for TrainingMode {
    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        flag.train()
    }
}
