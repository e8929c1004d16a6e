"""Yardsticks: what this package promises about speed, measured beside its peers and its ceiling (`make bench`)."""
