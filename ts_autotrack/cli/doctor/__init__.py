"""The checks of `ts-autotrack doctor`. Each check is a function that yields findings; `checkup` runs all of them."""
