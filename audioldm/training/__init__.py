"""The only room that imports lightning."""
