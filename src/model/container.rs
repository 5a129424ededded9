//! `Module` for the types of this crate, under containers of their own.

/// Implements `Module` and its display as Burn's derive does, except that the fields are in the
/// container `Self::CONTAINER`.
///
/// A derive names the container by the struct, whose name a struct of a user can have as well.
/// After the semicolon are the fields that are no modules, of types that are `Copy`.
macro_rules! module_in_container {
    ($module:ident { $($field:ident),+ $(; $($other:ident),+)? }) => {
        const _: () = {
            use std::fmt;

            use burn::{
                module::{
                    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper,
                    ModuleVisitor,
                },
                tensor::Device,
            };

            impl Module for $module {
                fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
                    $(
                        visitor.enter_module(stringify!($field), Self::CONTAINER);
                        Module::visit(&self.$field, visitor);
                        visitor.exit_module(stringify!($field), Self::CONTAINER);
                    )+
                }

                fn map<P: ModuleMapper>(self, mapper: &mut P) -> Self {
                    $(
                        mapper.enter_module(stringify!($field), Self::CONTAINER);
                        let $field = Module::map(self.$field, mapper);
                        mapper.exit_module(stringify!($field), Self::CONTAINER);
                    )+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn collect_devices(&self, devices: Devices) -> Devices {
                    $(let devices = Module::collect_devices(&self.$field, devices);)+
                    devices
                }

                fn fork(self, device: &Device) -> Self {
                    $(let $field = Module::fork(self.$field, device);)+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn to_device(self, device: &Device) -> Self {
                    $(let $field = Module::to_device(self.$field, device);)+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn train(self) -> Self {
                    $(let $field = Module::train(self.$field);)+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn valid(&self) -> Self {
                    $(let $field = Module::valid(&self.$field);)+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn materialize(self) -> Self {
                    $(let $field = Module::materialize(self.$field);)+
                    Self { $($field,)+ $($($other: self.$other,)+)? }
                }

                fn num_params(&self) -> usize {
                    [$(Module::num_params(&self.$field)),+].iter().sum()
                }
            }

            impl ModuleDisplayDefault for $module {
                fn content(&self, content: Content) -> Option<Content> {
                    content
                        .set_top_level_type(stringify!($module))
                        $(.add(stringify!($field), &self.$field))+
                        $($(.add_debug_attribute(stringify!($other), &self.$other))+)?
                        .optional()
                }

                fn num_params(&self) -> usize {
                    Module::num_params(self)
                }
            }

            impl fmt::Display for $module {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&ModuleDisplay::format(self, Default::default()))
                }
            }
        };
    };
}

pub(super) use module_in_container;
