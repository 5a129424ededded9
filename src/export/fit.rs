//! The tensors of a file in the places of a module: which layout they have, whether they fit, and
//! the errors if not.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

use burn::{
    module::{Module, ParamId},
    tensor::{DType, TensorData},
};
use burn_ema_base::first_non_finite;
use burn_pack::Tensor;
use burn_store::bridge;

use super::{
    LoadOptions, Names, cast,
    names::{Slot, in_file, slots},
    source::{Evidence, Source},
};
use crate::{
    Error, Result,
    average::{Entry, ReadRecord},
};

/// The places of a module beside the tensors of a file under a prefix.
struct Fit<'a> {
    source: &'a Source,
    prefix: &'a str,
    /// In the order of their names.
    slots: Vec<Slot>,
    /// The indices of the places that are of one parameter, by its id.
    ties: HashMap<ParamId, Vec<usize>>,
}

impl<'a> Fit<'a> {
    fn new<M: Module>(
        module: &M,
        source: &'a Source,
        prefix: &'a str,
        names: Option<&Names>,
    ) -> Self {
        let mut slots = slots(module, names);
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ties = HashMap::<_, Vec<_>>::new();
        slots
            .iter()
            .enumerate()
            .for_each(|(index, slot)| ties.entry(slot.id).or_default().push(index));
        Self { source, prefix, slots, ties }
    }

    fn named(&self, slot: &Slot) -> String {
        format!("{}{}", self.prefix, slot.name)
    }

    /// The tensor of the file for a place; `None` if the file has none.
    fn tensor(&self, slot: &Slot) -> Option<&'a Tensor> {
        self.tensor_under(self.prefix, slot)
    }

    /// The tensor for a place under a prefix: that of its name, or else that of another place of
    /// the same parameter and shape.
    fn tensor_under(&self, prefix: &str, slot: &Slot) -> Option<&'a Tensor> {
        let source = self.source;
        let named = |slot: &Slot| source.tensor(&format!("{prefix}{}", slot.name));
        let mut others = self.tied(slot).filter(|other| other.shape == slot.shape);
        named(slot).or_else(|| others.find_map(named))
    }

    /// All places of the parameter of this place.
    fn tied(&self, slot: &Slot) -> impl Iterator<Item = &Slot> {
        self.ties[&slot.id].iter().map(|index| &self.slots[*index])
    }

    fn fits_under(&self, prefix: &str, slot: &Slot) -> bool {
        self.tensor_under(prefix, slot).is_some_and(|tensor| tensor.shape == slot.shape)
    }

    fn all_fit_under(&self, prefix: &str) -> bool {
        self.slots.iter().all(|slot| self.fits_under(prefix, slot))
    }

    fn how_many_fit(&self) -> usize {
        self.slots.iter().filter(|slot| self.fits_under(self.prefix, slot)).count()
    }

    /// The other prefixes under which there is a tensor of the right shape for every place.
    fn prefixes(&self) -> BTreeSet<&'a str> {
        let Some(first) = self.slots.first() else { return BTreeSet::new() };
        let ends: Vec<_> = self.tied(first).map(|slot| &slot.name[..]).collect();
        let names = self.source.tensors.keys();
        let prefixes = names.flat_map(|name| ends.iter().filter_map(|end| name.strip_suffix(end)));
        let prefixes = prefixes.filter(|it| it.is_empty() || it.ends_with('.'));
        let others: BTreeSet<_> = prefixes.filter(|prefix| *prefix != self.prefix).collect();
        others.into_iter().filter(|prefix| self.all_fit_under(prefix)).collect()
    }

    /// The names of places in a file, for messages: `0.weight (layers.0.weight here)`.
    fn label(&self, slot: &Slot) -> String {
        let name = self.named(slot);
        match slot.path == name {
            true => name,
            false => format!("{name} ({} here)", slot.path),
        }
    }
}

/// The tensors of a file as a record of the module.
///
/// # Errors
///
/// The first tensor, by its name in the file, that is missing, that is not the module's, or that
/// differs from it in shape or dtype; a layout that neither the file nor the module determines; a
/// number that is not finite.
pub(super) fn opened<M: Module>(
    module: &M,
    mut source: Source,
    options: &LoadOptions,
) -> Result<ReadRecord> {
    let left_out = source.leave_out(options)?;
    let fit = decided(module, &source, options)?;
    let mut first = None;
    let _ = faults(module, &fit, options, &left_out, |fault| {
        first = Some(fault);
        ControlFlow::Break(())
    });
    if let Some(fault) = first {
        return Err(Group::of(fault).error());
    }
    // No tensor is read before all names, shapes and dtypes fit, so that a false header takes no
    // memory.
    let mut entries = BTreeMap::new();
    for slot in &fit.slots {
        let Some(tensor) = fit.tensor(slot) else { continue };
        let id = tensor.param_id.map_or(slot.id, Into::into);
        let data = read(&fit, slot, tensor.clone())?;
        entries.insert(slot.path.clone(), Entry { id, data });
    }
    ReadRecord::from(entries).finite(|_| true)
}

/// The places of the module in the layout of the file. The options decide it, else the file if it
/// is certain, else the fit of names and shapes.
fn decided<'a, M: Module>(
    module: &M,
    source: &'a Source,
    options: &'a LoadOptions,
) -> Result<Fit<'a>> {
    let of_torch = Names::new();
    let prefix = &options.prefix;
    let fit = |names| Fit::new(module, source, prefix, names);
    if let Some(form) = &options.form {
        return Ok(fit(form.names()));
    }
    let is_of_torch = source.kind.is_of_torch();
    let likely = fit(is_of_torch.then_some(&of_torch));
    if source.evidence == Evidence::Certain {
        return Ok(likely);
    }
    let other = fit((!is_of_torch).then_some(&of_torch));
    if source.evidence == Evidence::Nothing
        && likely.all_fit_under(prefix)
        && other.all_fit_under(prefix)
    {
        let by_path: HashMap<_, _> = other.slots.iter().map(|slot| (&slot.path, slot)).collect();
        let differs = |slot: &&Slot| slot.differs_from(by_path[&slot.path]);
        if let Some(slot) = likely.slots.iter().find(differs) {
            let expected = "a layout that names or shapes show";
            let found = format!(
                "a square matrix, {}: say which by `load_as` with `&Form::Safetensors` (Burn's) or \
                 `&Form::torch()` (PyTorch's), or by the option form",
                slot.in_file()
            );
            return Err(Error::parameter(likely.label(slot), expected, found));
        }
    }
    Ok(if other.how_many_fit() > likely.how_many_fit() { other } else { likely })
}

/// A tensor of a file for a place of the module, unread.
#[derive(Clone)]
pub(super) struct Fitted {
    /// The tensor's name in the file, and its path in the module if that differs.
    pub label: String,
    /// The tensor in the layout of the module's record.
    tensor: Tensor,
    /// The tensor in the layout of the file.
    stored: Tensor,
    /// True if the file has the tensor transposed.
    pub is_turned: bool,
}

/// The tensors of a file by their paths in the module, and nothing of them read.
///
/// # Errors
///
/// The errors of [`opened`] that need no number of a tensor: all of them, each cause once.
pub(super) fn fitted<M: Module>(
    module: &M,
    mut source: Source,
    options: &LoadOptions,
) -> Result<BTreeMap<String, Fitted>, Vec<Error>> {
    let left_out = source.leave_out(options).map_err(|error| vec![error])?;
    let fit = decided(module, &source, options).map_err(|error| vec![error])?;
    let mut groups = Groups::default();
    let _ = faults(module, &fit, options, &left_out, |fault| groups.add(fault));
    if !groups.groups.is_empty() {
        return Err(groups.errors());
    }
    let fitted = fit.slots.iter().filter_map(|slot| {
        let (label, stored) = (fit.label(slot), fit.tensor(slot)?.clone());
        let (tensor, is_turned) = (slot.inward(stored.clone()), slot.is_turned());
        Some((slot.path.clone(), Fitted { label, tensor, stored, is_turned }))
    });
    Ok(fitted.collect())
}

/// A tensor that does not fit.
struct Fault {
    label: String,
    expected: String,
    found: String,
    /// The rest of what was found, which several tensors may have in common; empty if a shape or a
    /// dtype differs and no option helps.
    cause: String,
}

/// The most errors about one file, and the most names in one of them beside the first.
const MAX_ERRORS: usize = 8;
const MAX_NAMES: usize = 4;

/// Tensors that do not fit for one cause: the first, the number of the others, and names of those.
struct Group {
    first: Fault,
    others: usize,
    names: Vec<String>,
}

impl Group {
    fn of(first: Fault) -> Self {
        Self { first, others: 0, names: Vec::new() }
    }

    fn error(self) -> Error {
        let Self { first: Fault { label, expected, found, cause }, others, names } = self;
        let more = if others > names.len() { ", ..." } else { "" };
        let others = match others {
            0 => String::new(),
            count => format!("; likewise {count} more: {}{more}", names.join(", ")),
        };
        Error::parameter(label, expected, found + &cause + &others)
    }
}

/// An error for each cause, and for each tensor without one; of what is beyond eight, the number.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    beyond: usize,
}

impl Groups {
    fn add(&mut self, fault: Fault) -> ControlFlow<()> {
        let is_same = |first: &Fault| !fault.cause.is_empty() && first.cause == fault.cause;
        match self.groups.iter().position(|group| is_same(&group.first)) {
            Some(index) => {
                let group = &mut self.groups[index];
                group.others += 1;
                if group.names.len() < MAX_NAMES {
                    group.names.push(fault.label);
                }
            }
            None if self.groups.len() < MAX_ERRORS => self.groups.push(Group::of(fault)),
            None => self.beyond += 1,
        }
        ControlFlow::Continue(())
    }

    fn errors(self) -> Vec<Error> {
        let Self { groups, beyond } = self;
        let errors = groups.into_iter().map(Group::error);
        let rest = (beyond > 0).then(|| Error::other(format!("{beyond} more tensors do not fit")));
        errors.chain(rest).collect()
    }
}

/// Passes on each tensor that the file lacks, has in another shape or dtype, or has beside the
/// module's, until `take` breaks.
fn faults<M: Module>(
    module: &M,
    fit: &Fit,
    options: &LoadOptions,
    left_out: &BTreeSet<String>,
    mut take: impl FnMut(Fault) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut used = BTreeSet::new();
    let ways_on = LazyCell::new(|| ways_on(module, fit, options));
    let nothing = LazyCell::new(|| nothing(fit) + &ways_on);
    for slot in &fit.slots {
        let (expected, tensor) = (slot.in_file(), fit.tensor(slot));
        let found = tensor.map(|tensor| in_file(tensor.dtype, &tensor.shape));
        let conversion = tensor
            .filter(|tensor| tensor.shape == slot.shape)
            .and_then(|tensor| conversion(tensor.dtype, slot.dtype));
        if found.as_ref() == Some(&expected) || (options.cast && conversion.is_some()) {
            used.extend(tensor.map(|tensor| &tensor.name[..]));
            continue;
        }
        let (found, cause) = match (found, conversion) {
            (Some(found), Some(how)) => (found, format!(", which {how}")),
            (Some(found), None) => (found, ways_on.clone()),
            (None, _) if left_out.contains(&fit.named(slot)) => {
                (String::new(), "a tensor that is left out".to_owned() + &ways_on)
            }
            (None, _) => (String::new(), nothing.clone()),
        };
        take(Fault { label: fit.label(slot), expected, found, cause })?;
    }
    let names: BTreeSet<_> = fit.slots.iter().map(|slot| &slot.name[..]).collect();
    let of_torch = fit.slots.iter().any(Slot::is_of_torch);
    let others = fit.source.tensors.iter().filter(|(name, _)| name.starts_with(fit.prefix));
    for (full, tensor) in others.filter(|(name, _)| !used.contains(&name[..])) {
        let name = &full[fit.prefix.len()..];
        if names.contains(name) || (of_torch && is_count(name, tensor, &names)) {
            continue;
        }
        let found = in_file(tensor.dtype, &tensor.shape) + " in the file";
        let cause = format!(", which the option leave_out passes over{}", *ways_on);
        let expected = "no tensor of this name".to_owned();
        take(Fault { label: full.clone(), expected, found, cause })?;
    }
    ControlFlow::Continue(())
}

/// The message for a missing tensor, with other names of the file that the module does not have.
fn nothing(fit: &Fit) -> String {
    let mut under =
        fit.source.tensors.keys().filter(|name| name.starts_with(fit.prefix)).peekable();
    if !fit.prefix.is_empty() && under.peek().is_none() {
        return format!("nothing under the prefix {}", fit.prefix);
    }
    let known: BTreeSet<_> = fit.slots.iter().map(|slot| fit.named(slot)).collect();
    let others = under.filter(|name| !known.contains(*name)).map(String::as_str);
    let others: Vec<_> = others.take(4).collect();
    match &others[..] {
        [] => "nothing of this name in the file".to_owned(),
        [first @ .., _] if others.len() == 4 => {
            format!("nothing of this name among {}, ...", first.join(", "))
        }
        others => format!("nothing of this name among {}", others.join(", ")),
    }
}

/// The options with which more of a file would fit, for messages.
fn ways_on<M: Module>(module: &M, fit: &Fit, options: &LoadOptions) -> String {
    let of_torch = Names::new();
    let is_of_torch = fit.slots.iter().any(Slot::is_of_torch);
    let names = (!is_of_torch).then_some(&of_torch);
    let other = Fit::new(module, fit.source, fit.prefix, names);
    let form = if is_of_torch { "Form::Safetensors" } else { "Form::torch()" };
    let mut ways = Vec::new();
    if fit.all_fit_under(fit.prefix) {
        // It is a dtype that differs, or there is more in the file.
    } else if other.all_fit_under(fit.prefix) {
        ways.push(format!("all of it fits with the option form `{form}`"));
    } else if options.form.is_some() && other.how_many_fit() > fit.how_many_fit() {
        ways.push(format!("more of it fits with the option form `{form}`"));
    }
    let with_prefix = [(fit, None), (&other, Some(form))].map(|(fit, form)| (fit.prefixes(), form));
    for (prefixes, form) in with_prefix {
        // A form that the file or the options fix must be given beside another prefix.
        let form =
            form.filter(|_| options.form.is_some() || fit.source.evidence == Evidence::Certain);
        let form =
            form.map_or_else(String::new, |form| format!(" and with the option form `{form}`"));
        let more = if prefixes.len() > 6 { " or ..." } else { "" };
        let named = prefixes.iter().take(6).filter(|prefix| !prefix.is_empty());
        let named: Vec<_> =
            named.map(|prefix| format!("`{}`", prefix.trim_end_matches('.'))).collect();
        let named = named.join(" or ");
        let how = match (prefixes.contains(""), &named[..]) {
            (false, "") => continue,
            (true, "") => "without the option prefix".to_owned(),
            (true, named) => format!("without the option prefix or with {named}{more}"),
            (false, named) => format!("with the option prefix {named}{more}"),
        };
        ways.push(format!("all of it fits {how}{form}"));
        break;
    }
    ways.iter().map(|way| format!("; {way}")).collect()
}

/// The effect of the option cast, for messages; `None` unless both dtypes are floats or both
/// integers.
fn conversion(from: DType, to: DType) -> Option<&'static str> {
    let is_integer = |dtype: DType| dtype.is_int() || dtype.is_uint();
    if is_integer(from) && is_integer(to) {
        return Some("the option cast converts where the numbers fit");
    }
    // Neither of the two dtypes of 16 bits holds all numbers of the other.
    let widens = to.size() > from.size();
    (from.is_float() && to.is_float()).then_some(match widens {
        true => "the option cast widens without loss",
        false => "the option cast rounds",
    })
}

/// True for a count that PyTorch keeps beside weights and Burn does not: the batches of a batch
/// norm, the updates of an `AveragedModel`.
fn is_count(name: &str, tensor: &Tensor, names: &BTreeSet<&str>) -> bool {
    let is_one =
        (tensor.dtype.is_int() || tensor.dtype.is_uint()) && tensor.shape.num_elements() == 1;
    let of_norm = |norm: &str| names.contains(&format!("{norm}running_mean")[..]);
    let of_average = |module: &str| {
        let mut under = names.range(module..).next().into_iter();
        (module.is_empty() || module.ends_with('.')) && under.any(|it| it.starts_with(module))
    };
    name.strip_suffix("num_batches_tracked").is_some_and(of_norm)
        || (is_one && name.strip_suffix("n_averaged").is_some_and(of_average))
}

/// The numbers of a tensor in the layout and the dtype of the module; errors for numbers it cannot
/// hold.
fn read(fit: &Fit, slot: &Slot, tensor: Tensor) -> Result<TensorData> {
    let data = numbers(&fit.label(slot), slot.inward(tensor))?;
    let refuse = |(expected, found)| Error::parameter(fit.label(slot), expected, found);
    converted(data, slot.dtype).map_err(refuse)
}

/// The numbers in another dtype; what was expected and what was found if it does not hold them.
pub(super) fn converted(data: TensorData, dtype: DType) -> Result<TensorData, (String, String)> {
    match beyond(&data, dtype) {
        None => cast(data, dtype).map_err(|found| (READABLE.to_owned(), found)),
        Some((index, value)) => {
            let expected = format!("numbers that {} holds", dtype.name());
            Err((expected, format!("{value} at index {index}")))
        }
    }
}

/// The expectation of errors about bytes that are no numbers.
const READABLE: &str = "a tensor that can be read";

impl Fitted {
    /// The numbers in the dtype of the file.
    pub fn read(self) -> Result<TensorData> {
        numbers(&self.label, self.tensor)
    }

    /// The numbers in the dtype and the layout of the file, without a copy that is turned.
    pub fn read_stored(self) -> Result<TensorData> {
        numbers(&self.label, self.stored)
    }
}

/// The numbers of a tensor; errors name it by its label.
fn numbers(label: &str, tensor: Tensor) -> Result<TensorData> {
    let unread = |found: String| Error::parameter(label, READABLE, found);
    let data = bridge::into_data(tensor).map_err(|error| unread(error.to_string()))?;
    if data.dtype().is_bool()
        && let Some(index) = data.as_bytes().iter().position(|byte| *byte > 1)
    {
        let byte = data.as_bytes()[index];
        return Err(unread(format!("{byte} for a truth value at index {index}")));
    }
    Ok(data)
}

/// The first number that a dtype does not hold, and its index; `None` if it holds all.
fn beyond(data: &TensorData, dtype: DType) -> Option<(usize, String)> {
    let from = data.dtype();
    if from.is_float() && dtype.is_float() && dtype.size() <= from.size() && dtype != from {
        // What is not finite in the file is found later.
        if first_non_finite(data.as_bytes(), from).is_some() {
            return None;
        }
        let rounded = data.clone().try_cast(dtype).ok()?;
        let (index, _) = first_non_finite(rounded.as_bytes(), dtype)?;
        return Some((index, data.iter::<f64>().nth(index)?.to_string()));
    }
    // In f64, 64-bit integers near the upper end round up to it, and so are refused.
    let bits = 8 * dtype.size() as i32;
    let (from_number, to_number) = match dtype {
        _ if from == dtype => return None,
        _ if dtype.is_uint() => (0.0, 2_f64.powi(bits)),
        _ if dtype.is_int() => (-2_f64.powi(bits - 1), 2_f64.powi(bits - 1)),
        _ => return None,
    };
    let mut numbers = data.iter::<f64>().enumerate();
    let found = numbers.find(|(_, number)| !(from_number..to_number).contains(number));
    found.map(|(index, number)| (index, number.to_string()))
}
