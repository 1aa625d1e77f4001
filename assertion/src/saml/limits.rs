//! What a document may cost before anything in it has a meaning.

/// Bounds of a document. The defaults are several times what the largest assertions in use need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in all; never more than 16 MiB are taken, whatever stands here
    pub bytes_max: usize,
    /// Open elements
    pub depth_max: usize,
    /// Elements, runs of text, CDATA sections and comments
    pub nodes_max: usize,
    /// Attributes of one element, its namespace declarations not counted
    pub element_attributes_max: usize,
    /// Attributes in all
    pub attributes_max: usize,
    /// Namespace declarations in scope at once
    pub scope_max: usize,
    /// Namespace declarations in all
    pub declarations_max: usize,
    /// Bytes of a name with its prefix, and of an ID
    pub name_max: usize,
}

impl Limits {
    /// For documents that are encrypted: more than any that is signed has, so that a signature never makes a document
    /// too large that was not before.
    pub const OF_SIGNED: Limits = Limits {
        bytes_max: 16 << 20,
        depth_max: 64,
        nodes_max: 16_384,
        element_attributes_max: 64,
        attributes_max: 8_192,
        scope_max: 64,
        declarations_max: 2_048,
        name_max: 1_024,
    };
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bytes_max: 256 << 10,
            depth_max: 32,
            nodes_max: 4096,
            element_attributes_max: 32,
            attributes_max: 2048,
            scope_max: 32,
            declarations_max: 512,
            name_max: 256,
        }
    }
}
