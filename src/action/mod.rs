//! Everything a step can run: the trait, the registry, recognition, one file per family.
