//! One-byte codes with names: why a note was refused, what has failed.
//!
//! Promise: a code that is in no table of ours stays `Unknown` with its raw byte.

macro_rules! codes {
    ($(#[$doc:meta])* $name:ident { $($code:literal $variant:ident $words:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = concat!($words, ".")] $variant,)*
            /// A code that is in no table of ours.
            Unknown {
                /// The code.
                raw: u8,
            },
        }

        impl $name {
            /// Every code that has a name.
            pub const KNOWN: &[Self] = &[$(Self::$variant),*];

            /// The meaning of a code.
            #[must_use]
            pub const fn from_code(code: u8) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    raw => Self::Unknown { raw },
                }
            }

            /// The code on the line.
            #[must_use]
            pub const fn code(self) -> u8 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Unknown { raw } => raw,
                }
            }
        }

        /// In words, with the raw code.
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                let words = match self {
                    $(Self::$variant => $words,)*
                    Self::Unknown { .. } => "unknown code",
                };
                write!(f, "{words} ({:02X})", self.code())
            }
        }
    };
}

pub(super) use codes;
