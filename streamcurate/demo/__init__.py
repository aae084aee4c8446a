"""Two small pools that come with the package, and their curation from file to picture."""

from streamcurate.demo.curation import Curated, curate, prepare_folder
from streamcurate.demo.measures import divergence, shares
from streamcurate.demo.pools import POOLS, Pool, digits, rings

__all__ = ["POOLS", "Curated", "Pool", "curate", "digits", "divergence", "prepare_folder", "rings", "shares"]
