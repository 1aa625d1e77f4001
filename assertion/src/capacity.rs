//! In which capacity a person acts.

/// "Acting as", as the request says it and the document must say it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capacity<'a> {
    /// As himself
    Citizen,
    /// For the company with this CVR number, eight digits
    Company(&'a str),
}
