//! Kryoptic, whose module `SEGL_KRYOPTIC` names: the suite once more.
