//! Documents that are named on the command line.

use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::model::FileName;
use crate::pipeline::Operand;
use crate::schema::NameRule;

/// The operands as documents: a directory gives the files in it whose names are taken, in the
/// order of their names, and not those of directories below.
///
/// # Errors
///
/// A directory cannot be listed.
pub fn expand(operands: &[PathBuf], names: &NameRule) -> Result<Vec<Operand>> {
    let mut documents = Vec::new();
    for operand in operands {
        if operand == Path::new("-") {
            documents.push(Operand::Stdin);
        } else if operand.is_dir() {
            let found = in_directory(operand, names)?;
            if found.is_empty() {
                let directory = FileName::new(operand.as_os_str().as_bytes());
                let _ = writeln!(io::stderr(), "intentd: there is no intent file in `{directory}`");
            }
            documents.extend(found);
        } else {
            documents.push(document(operand.clone()));
        }
    }
    Ok(documents)
}

fn in_directory(directory: &Path, names: &NameRule) -> Result<Vec<Operand>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if !names.takes(entry.file_name().as_bytes()) {
                continue;
            }
            let path = entry.path();
            // The listing tells; only what a link leads to has to be looked up.
            let kind = entry.file_type()?;
            if !(kind.is_dir() || (kind.is_symlink() && path.is_dir())) {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    };
    let paths = list().with_context(|| format!("list `{}`", directory.display()))?;
    Ok(paths.into_iter().map(document).collect())
}

fn document(path: PathBuf) -> Operand {
    Operand::File { file: FileName::new(path.as_os_str().as_bytes()), path }
}
