// SPDX-License-Identifier: GPL-2.0

//! Stand-in for the attribute macros of the kernel crate.

use proc_macro::{Group, TokenStream, TokenTree};

/// Accepts what the kernel's `#[pin_data]` accepts, and only drops the `#[pin]` of the fields:
/// loom moves nothing that is shared.
#[proc_macro_attribute]
pub fn pin_data(_: TokenStream, item: TokenStream) -> TokenStream {
    drop_pin(item)
}

fn drop_pin(stream: TokenStream) -> TokenStream {
    let mut out = Vec::new();

    for token in stream {
        let TokenTree::Group(group) = token else {
            out.push(token);
            continue;
        };

        if group.stream().to_string() == "pin" {
            // The `#` before `[pin]` goes as well.
            out.pop();
        } else {
            out.push(Group::new(group.delimiter(), drop_pin(group.stream())).into());
        }
    }
    out.into_iter().collect()
}
