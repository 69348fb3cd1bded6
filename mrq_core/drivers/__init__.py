"""Code that drivers share, so that each rule stands once.

`replacing`: changes by compare-and-set. `encoding`: records as stored. `limits`: limit keys and rates.
`versions`: versions of stored data and their upgrades. `checks`: findings of `mrq check`. `forks`: children.
"""
