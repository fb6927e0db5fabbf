package desktop

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
)

// Read reads the words in a picture, by tesseract, line by line. It makes mistakes as readers do: look for single words.
func (d *Desktop) Read(ctx context.Context, picture image.Image) (string, error) {
	var small bytes.Buffer
	if err := png.Encode(&small, picture); err != nil {
		return "", fmt.Errorf("desktop: %w", err)
	}
	// Tesseract is made for paper, scanned at 300 dots an inch: three times what a screen has.
	large, err := d.tool(ctx, small.Bytes(), "convert", "png:-", "-colorspace", "gray", "-resize", "300%", "png:-")
	if err != nil {
		return "", err
	}
	const uniformBlock = "6" // tesseract(1), --psm
	// With threads it takes longer, unless there are processors to spare.
	return d.tool(ctx, []byte(large), "env", "OMP_THREAD_LIMIT=1", "tesseract", "-", "-", "--psm", uniformBlock, "-l", "eng")
}

// Clipboard returns the text in the clipboard.
func (d *Desktop) Clipboard(ctx context.Context) (string, error) {
	return d.tool(ctx, nil, "xclip", "-selection", "clipboard", "-out")
}
