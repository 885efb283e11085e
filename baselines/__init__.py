"""The methods SafeMIL is compared with: one file each, all of one signature."""
