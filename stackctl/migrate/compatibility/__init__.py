"""Whether new migrations leave the running version of the application working: tried on databases of our own."""
