"""The memory of the newest definitions in the targets: has a target become older?"""
