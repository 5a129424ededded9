//! Integration tests, linked into one binary.

#[cfg(all(feature = "train", target_os = "linux"))]
mod child; // a test of this binary as a process of its own
mod common; // models, loaders and trainings that the others share

#[cfg(feature = "train")]
mod artifacts; // the committed run is what its command makes
mod average; // `Average`: its pairing, its storage
#[cfg(all(feature = "train", feature = "flex"))]
mod averages; // a noisy weight and its averages: the figures, against closed forms
mod backprop; // gradients in closed form against PyTorch, autodiff, central differences
mod bema; // BEMA as TRL updates it, against its callback
#[cfg(feature = "train")]
mod best; // the best commit and early stopping by metrics that are there, and that are not
#[cfg(feature = "train")]
mod browser; // the page of a run in Chromium, where someone asks for it
#[cfg(feature = "train")]
mod bundle; // several records as one
// Clippy looks at all features at once.
#[cfg(all(feature = "train", any(not(feature = "wgpu"), clippy)))]
mod burn; // faults of Burn that are worked around, on the CPU
#[cfg(feature = "train")]
mod clocks; // samples, epochs, a late start, several steps an update
#[cfg(feature = "train")]
mod commits; // a training that commits, in this process: against Burn's loop, what is kept
#[cfg(all(feature = "train", unix))]
mod compare; // the comparison with PyTorch, without PyTorch
#[cfg(feature = "train")]
mod configs; // configurations of runs: numbers, sets, what is no JSON
#[cfg(all(feature = "tui", target_os = "linux"))]
mod dashboard; // Burn's full-screen dashboard, and what ends a training there
#[cfg(feature = "train")]
mod dense; // a layer and its loss as one operation each, against Burn's operations
#[cfg(all(feature = "train", feature = "flex"))]
mod diffusion; // a sampler's live and averages: the example, its tables over seeds
#[cfg(feature = "train")]
mod dtypes; // in which dtype and where an average is kept; nothing of it is shared
#[cfg(feature = "train")]
mod examples; // the example programs, as a user runs them
#[cfg(feature = "train")]
mod export; // models as files of other frameworks, and from them
#[cfg(feature = "train")]
mod gains; // live against its averages over many seeds: statistics, wrong labels, resumption
#[cfg(feature = "train")]
mod gauges; // several averages of one training: metrics, gaps, distances, the best
#[cfg(feature = "train")]
mod go_on; // runs of the example that go on as they were begun
#[cfg(all(feature = "train", unix))]
mod gpu; // the measurements on a GPU, without a GPU
#[cfg(feature = "train")]
mod guard; // NaN and infinity, refused
mod guide; // what the guide says, and the formulas of the documentation
#[cfg(feature = "train")]
mod hand; // hands beside a training, such as a diary, and floats put into a module
#[cfg(feature = "train")]
mod hook; // `Averaged` under every strategy of Burn's Learner, against a loop by hand
#[cfg(feature = "train")]
mod loaders; // loaders without a batch, of another size, with a shorter last batch
#[cfg(all(feature = "train", target_os = "linux"))]
mod lock; // one process at a time writes to a run
#[cfg(all(feature = "train", unix))]
mod mean_teacher; // few labels and a teacher: the example, its table, its runs after kills
#[cfg(feature = "train")]
mod memory; // one copy of the weights per average
#[cfg(feature = "train")]
mod merge; // saved models as one, by all weights and in all forms
#[cfg(feature = "train")]
mod metrics; // live and average beside each other in Burn's metrics
mod mlp; // the perceptron's configuration and errors
#[cfg(feature = "train")]
mod next; // what the next version of Burn changes for these tests
#[cfg(feature = "train")]
mod optim; // optimizers of one pass against Burn's: weights, records, memory
#[cfg(feature = "train")]
mod peers; // what other systems get wrong, shown wrong there and right here
#[cfg(all(feature = "runs", unix))]
mod plain; // a plain model, without any average, in a run that commits, fails or is killed
mod policies; // globs, policies, statistics, constants
#[cfg(feature = "train")]
mod profiles; // the profiles of rules in use, as printed and as documented
#[cfg(feature = "train")]
mod report; // a run on a page, and what is recorded for it
#[cfg(feature = "train")]
mod resume; // records of the hooked module: resume, refusals, added and dropped averages
#[cfg(all(feature = "train", feature = "flex"))]
mod rl; // an agent of Burn's reinforcement learning whose target network is an average
mod rules; // every rule on tensors, against other programs, closed forms and its own profile
mod saved; // averages in records and files: resume, refusals, damage
#[cfg(all(feature = "train", target_os = "linux"))]
mod signals; // Ctrl-C and `kill` stop a training in order, the second time at once
#[cfg(feature = "train")]
mod snapshots; // averages stored during a training, and others made of them
#[cfg(all(feature = "train", feature = "flex"))]
mod soup; // fine-tunings merged, beside each and its averages: the example
#[cfg(feature = "train")]
mod statistics; // batch norms of an average against means by hand
#[cfg(all(feature = "train", any(not(feature = "wgpu"), clippy)))]
mod steps; // optimizer steps of NaN and infinity, refused
#[cfg(feature = "train")]
mod survive; // faults of every kind, and runs that go on as if undisturbed
#[cfg(feature = "train")]
mod switch; // the average copied back into live
#[cfg(feature = "train")]
mod tables; // tables as people have them, learned and asked about
#[cfg(all(feature = "train", feature = "flex"))]
mod target; // the example of target networks: its environment, its table
mod targets; // target networks
#[cfg(all(feature = "train", target_os = "linux"))]
mod teacher; // an average that live learns from
#[cfg(all(feature = "train", target_os = "linux"))]
mod terminal; // a terminal for a program that wants one
#[cfg(feature = "train")]
mod unusual; // modules and loops that users bring beside the usual ones
#[cfg(all(feature = "train", any(not(feature = "wgpu"), clippy)))]
mod updates; // the hook's updates against those by hand; panics and NaN of a user's `optimize`
#[cfg(feature = "train")]
mod warnings; // the warnings of an average, and when they come
