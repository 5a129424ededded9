//! The differences between Burn 0.22 and its next version. No other file of `src` has
//! `cfg(burn_next)`.

/// The progress of a split, as Burn's progress loggers get it: in 0.22 a number of items.
#[cfg(all(feature = "tui", not(burn_next)))]
pub(crate) type SplitProgress = usize;
#[cfg(all(feature = "tui", burn_next))]
pub(crate) type SplitProgress<'a> = &'a burn::data::dataloader::Progress;

/// Defines the method of a progress logger at the end of a split, which forwards to the logger that
/// another method returns.
#[cfg(feature = "tui")]
macro_rules! forward_end {
    ($method:ident, $to:ident) => {
        fn $method(&mut self, #[cfg(burn_next)] progress: $crate::next::SplitProgress) {
            self.$to().$method(
                #[cfg(burn_next)]
                progress,
            );
        }
    };
}
#[cfg(feature = "tui")]
pub(crate) use forward_end;

/// Converts a tensor by an adapter of burn-store.
#[cfg(feature = "export")]
pub(crate) fn adapt(
    adapter: impl burn_store::ModuleAdapter,
    tensor: burn_pack::Tensor,
    containers: &[String],
) -> burn_pack::Tensor {
    #[cfg(burn_next)]
    let tensor = tensor.into();
    let tensor = adapter.adapt(tensor, burn_store::ModuleContext::new(containers));
    #[cfg(burn_next)]
    let tensor = tensor.into_pack();
    tensor
}
