//! The exponent `gamma` of the power function and its relative width `sigma_rel`.

/// The width of exponent 0, `1 / sqrt(12)`.
pub(super) const WIDEST: f64 = 0.288_675_134_594_812_9;

/// The standard deviation of the density `(gamma + 1) tau^gamma` on `[0, 1]`.
pub(super) fn sigma_rel_of(gamma: f64) -> f64 {
    ((gamma + 1.0) / (gamma + 3.0)).sqrt() / (gamma + 2.0)
}

/// The smallest exponent from 0 whose computed width is at most `sigma_rel`, to the last bit.
pub(super) fn gamma_of(sigma_rel: f64) -> f64 {
    if sigma_rel >= sigma_rel_of(0.0) {
        return 0.0;
    }
    // The width falls as the exponent grows, and the bits of numbers from 0 are in their order.
    let (mut below, mut above) = (0, f64::MAX.to_bits());
    while above - below > 1 {
        let middle = below + (above - below) / 2;
        match sigma_rel_of(f64::from_bits(middle)) > sigma_rel {
            true => below = middle,
            false => above = middle,
        }
    }
    f64::from_bits(above)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exponents_are_those_of_the_cubic_equation() {
        // The roots of g^3 + 7 g^2 + (16 - s) g + (12 - s) with s = sigma_rel^-2.
        for (sigma_rel, gamma) in [
            (0.05, 16.972_198_602_303_447),
            (0.1, 6.937_203_937_601_809),
            (0.15, 3.558),
            (0.2, 1.826),
            (0.25, 0.720),
            (0.28, 0.169),
        ] {
            let found = gamma_of(sigma_rel);
            let tolerance = if sigma_rel <= 0.1 { 1e-12 * gamma } else { 5e-4 };
            assert!((found - gamma).abs() <= tolerance, "{sigma_rel}: {found}");
            let s = sigma_rel.powi(-2);
            let terms = [found.powi(3), 7.0 * found.powi(2), (16.0 - s) * found, 12.0 - s];
            let size = terms.iter().fold(0.0_f64, |size, term| size.max(term.abs()));
            assert!(terms.iter().sum::<f64>().abs() <= 1e-14 * size, "{sigma_rel}: {terms:?}");
        }
    }

    #[test]
    fn the_widest_is_exponent_zero() {
        assert_eq!(WIDEST, 1.0 / 12f64.sqrt());
        assert_eq!(gamma_of(WIDEST), 0.0);
        assert_eq!(gamma_of(sigma_rel_of(0.0)), 0.0);
    }

    #[test]
    fn the_narrowest_widths_still_have_an_exponent() {
        for sigma_rel in [1e-3, 1e-30, 1e-300, f64::MIN_POSITIVE] {
            let gamma = gamma_of(sigma_rel);
            assert!(gamma.is_finite());
            assert!((sigma_rel_of(gamma) / sigma_rel - 1.0).abs() < 1e-15, "{sigma_rel}");
        }
    }

    proptest! {
        #[test]
        fn width_and_exponent_are_inverse(gamma in 0.01..1000f64) {
            prop_assert!((gamma_of(sigma_rel_of(gamma)) / gamma - 1.0).abs() < 1e-12);
        }
    }
}
