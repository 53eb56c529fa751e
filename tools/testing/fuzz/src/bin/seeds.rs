// SPDX-License-Identifier: GPL-2.0

//! Writes the images that fuzzing begins with: `seeds FOLDER MODULE...`

use module_dedup_peek::{relaid, KINDS};
use std::{env, fs, path::Path};

fn main() {
    let mut args = env::args_os().skip(1);
    let folder = args.next().expect("usage: seeds FOLDER MODULE...");

    for module in args {
        let image = fs::read(&module).expect("the module can be read");
        let name = Path::new(&module).file_stem().expect("a module is a file");

        for kind in KINDS {
            for behind in [0, 60] {
                let file = format!(
                    "{}-{:?}-{:?}-{behind}",
                    name.to_string_lossy(),
                    kind.class,
                    kind.order
                );
                let seed = relaid(&image, kind, behind).expect("the module is one of kbuild's");

                fs::write(Path::new(&folder).join(file), seed).expect("the folder can be written");
            }
        }
    }
}
